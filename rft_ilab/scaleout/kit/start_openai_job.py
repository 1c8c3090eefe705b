"""Upload the files beside this one and start their reinforcement fine-tuning job.

``pip install openai``, set OPENAI_API_KEY, then ``python start_openai_job.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    import openai

    client = openai.OpenAI()
    body = json.loads((HERE / "job.json").read_text(encoding="utf-8"))
    for key, name in (("training_file", "train.jsonl"), ("validation_file", "validation.jsonl")):
        if key in body:
            with (HERE / name).open("rb") as file:
                body[key] = client.files.create(file=(name, file), purpose="fine-tune").id
    print(client.fine_tuning.jobs.create(**body).id)


if __name__ == "__main__":
    main()
