"""10 s of music from a sentence, the vocoder alone, and endless music: how much faster than real time?

    python benchmarks/music.py [--model music] [--threads 2]

The model is loaded first. The vocoder's rate is measured on one thread, from mels of the length that was generated.
"""

from __future__ import annotations

import argparse
import time

PROMPT = "a slow sad piece for solo cello in D minor, 66 bpm"


def median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="music", help="a shipped model or a folder")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0: as many as PyTorch takes")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    import torch

    from counterpoint.diffusion.pipeline import CounterpointPipeline
    from counterpoint.modalities.audio import mel_spectrogram

    torch.set_num_threads(args.threads or torch.get_num_threads())
    pipeline = CounterpointPipeline.from_pretrained(args.model, device="cpu")
    clips, times = [], []
    for seed in range(args.repeats):
        start = time.perf_counter()
        clips.append(pipeline(PROMPT, seconds=10, seed=seed))
        times.append(time.perf_counter() - start)
    sound = torch.from_numpy(clips[-1].audio.values)[None, :1]  # [1, 1, N]
    print(f"{clips[-1].duration:.2f} s of music, {torch.get_num_threads()} threads: first {times[0]:.2f} s,"
          f" median {median(times):.2f} s, {clips[-1].duration / median(times):.1f} times real time")  # fmt: skip

    start = time.perf_counter()
    made = 0.0
    for piece in pipeline.stream(PROMPT, seconds=30.0, seed=0):
        made += piece.audio.values.shape[-1] / piece.audio.rate
    took = time.perf_counter() - start
    print(f"endless, the first {made:.1f} s: {made / took:.1f} times real time")

    torch.set_num_threads(1)
    vocoder = pipeline.codecs.vocoder
    mel = mel_spectrogram(sound[..., : sound.shape[-1] // 2560 * 2560])  # whole slots
    took = []
    with torch.no_grad():
        for _ in range(2 + 2 * args.repeats):
            start = time.perf_counter()
            vocoder(mel)
            took.append(time.perf_counter() - start)
    print(f"vocoder, one thread: {mel.shape[-1] / 50 / median(took[2:]):.0f} times real time")


if __name__ == "__main__":
    main()
