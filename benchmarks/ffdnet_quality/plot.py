"""Curves from the records beside this file: sparsity.png, multiplications.png, training.png."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
DENSE = (28.884, 35.220)


def records(name):
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


def loss_of(record):
    """Mean PSNR below the dense network, dB."""
    return sum(DENSE) / 2 - sum(record["psnr"]) / 2


def over(points, key, label, file):
    _, axes = plt.subplots(figsize=(6, 4))
    for tile in sorted({p["tile"] for p in points}):
        line = sorted((p for p in points if p["tile"] == tile), key=lambda p: p[key])
        axes.plot([p[key] for p in line], [loss_of(p) for p in line], "o-", label=f"F({tile},3)")
    axes.set(xlabel=label, ylabel="mean PSNR below dense, dB", yscale="log")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    plt.tight_layout()
    plt.savefig(HERE / file, dpi=120)


def over_time(runs, file):
    _, axes = plt.subplots(figsize=(6, 4))
    for label, points in runs.items():
        axes.plot([p["seconds"] / 60 for p in points], [loss_of(p) for p in points], label=label)
    axes.axhline(0.2, color="gray", linestyle="--", linewidth=1)
    axes.set(xlabel="minutes of training", ylabel="mean PSNR below dense, dB")
    axes.grid(True, alpha=0.3)
    axes.legend()
    plt.tight_layout()
    plt.savefig(HERE / file, dpi=120)


def main():
    points = records("one_shot.jsonl")
    over(points, "sparsity", "share of zeros", "sparsity.png")
    over(
        points,
        "multiplications_per_output",
        "multiplications per output and input channel",
        "multiplications.png",
    )
    runs = {}
    for record in records("training.jsonl"):
        runs.setdefault(record["run"], []).append(record)
    over_time(runs, "training.png")


if __name__ == "__main__":
    main()
