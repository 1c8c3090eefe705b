"""Files that `ilab rft export` puts beside the rows; they run where the other trainer runs, without rft-ilab."""
