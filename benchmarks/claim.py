"""The claim: `python -m benchmarks.claim FOLDER`; run it again to go on where it stopped. `--quick` is a rehearsal.

Does LIMPQ's policy beat the best uniform one, the reversed one, and the same search on untrained indicators? Each seed
is an experiment of its own, run by `mixbit run`; its float model is that of the first seed, its indicators and
fine-tunings are its own. A trial is one policy of one seed: its fine-tuned network on the test split, a line in
FOLDER/trials.jsonl. Two seeds run side by side, one thread each. Meant for two hours on two idle cores. `--table` runs
nothing: it judges what is there, and tells.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.claim_setting import BASELINES, BUDGET, QUICK, Setting, experiment, name_of
from benchmarks.claim_table import table
from benchmarks.machine import machine
from tasks.place import ROOT
from tasks.record import Record
from tasks.store import Store

SEARCHED = "limpq"
POLICIES = {SEARCHED: BUDGET, **{name: f"{BUDGET}-{name}" for name in BASELINES}}
SIDE_BY_SIDE = 2
LOOK_S = 2.0


class Claim:
    """A folder with the state of its own pipeline, experiment files, what runs said, and trials.jsonl."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.folder, self.setting = folder, setting
        self.store = Store(folder / "state")
        self.checkpoint = folder / "float_model.safetensors"
        self.judging = Lock()  # torch.fx traces one network at a time
        folder.mkdir(parents=True, exist_ok=True)
        self._keep_setting()

    def _keep_setting(self) -> None:
        """A folder is of one setting: trials of two can't be compared."""
        path, mine = self.folder / "setting.json", json.dumps(self.setting.as_json(), indent=1)
        if path.exists() and path.read_text() != mine:
            raise SystemExit(f"{path} has another setting: choose another folder")
        path.write_text(mine)

    def mixbit(self, *arguments: str, log: str) -> subprocess.Popen[bytes]:
        """Start a command; what it says goes to a file."""
        environment = {**os.environ, "MIXBIT_HOME": str(self.store.folder), "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{log}.log").open("ab") as out:
            command = [sys.executable, "-m", "flows.cli", *arguments]
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)

    def run(self, seed: int) -> None:
        """One seed's experiment; the first also hands on its float model as soon as there is one."""
        first = seed == self.setting.seeds[0]
        file = self.folder / f"{name_of(seed)}.yaml"
        file.write_text(experiment(self.setting, seed, None if first else str(self.checkpoint)))
        process = self.mixbit("run", str(file), log=name_of(seed))
        while first and process.poll() is None and not self._hand_on(seed):
            time.sleep(LOOK_S)
        if process.wait():
            raise SystemExit(f"seed {seed} failed: see {self.folder / name_of(seed)}.log")
        self._hand_on(seed)
        self.judge(seed)

    def _hand_on(self, seed: int) -> bool:
        made = self.store.latest(name_of(seed), "float_model")
        if made is not None and not self.checkpoint.exists():
            part = self.checkpoint.with_suffix(".part")
            shutil.copyfile(self.store.blob(made.outputs["float_model.safetensors"].sha256), part)
            part.rename(self.checkpoint)
        return made is not None

    def trials(self) -> list[dict[str, Any]]:
        """What is finished, seeds and policies in order."""
        log = self.folder / "trials.jsonl"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        places = list(POLICIES)
        return sorted(found, key=lambda trial: (trial["seed"], places.index(trial["policy"])))

    def judge(self, seed: int) -> None:
        """A line per policy of this seed that is fine-tuned and has none yet."""
        with self.judging:
            known = {(trial["seed"], trial["policy"]) for trial in self.trials()}
            for policy, tag in POLICIES.items():
                tuned = self.store.latest(name_of(seed), f"finetuned_model {tag}")
                if tuned is not None and (seed, policy) not in known:
                    line = self._trial(seed, policy, tag)
                    with (self.folder / "trials.jsonl").open("a") as file:
                        file.write(json.dumps(line) + "\n")

    def _trial(self, seed: int, policy: str, tag: str) -> dict[str, Any]:
        chosen = self._latest(seed, f"{'policy' if policy == SEARCHED else 'baseline'} {tag}")
        tuned = self._latest(seed, f"finetuned_model {tag}")
        indicators = self._latest(seed, "indicators")
        correct, losses = self._on_test(seed, chosen, tuned)
        return {
            "seed": seed,
            "policy": policy,
            "policy_sha256": chosen.outputs["policy.json"].sha256,
            "bitops": chosen.figures["bitops"],
            "mean_bits": [chosen.figures["mean_weight_bits"], chosen.figures["mean_activation_bits"]],
            "val": dict(tuned.figures),
            "seconds": {"indicators": indicators.seconds, "finetuned_model": tuned.seconds},
            "step_movement": dict(indicators.figures),
            "correct": correct,
            "losses": losses,
        }

    def _on_test(self, seed: int, chosen: Record, tuned: Record) -> tuple[list[int], list[float]]:
        """Per test picture, whether it is right, and its loss."""
        import torch
        from safetensors.torch import load_file

        from mixbit.models.build import build_model
        from mixbit.models.quantize import load_quantized
        from mixbit.policy import load_policy
        from mixbit.training.batches import read_info, read_pictures
        from mixbit.training.evaluate import predict
        from mixbit.training.task import classification

        torch.set_num_threads(1)
        dataset = self._latest(seed, "dataset")
        info = read_info(self._blob(dataset, "dataset_info.json"))
        layers = json.loads(self._blob(self._latest(seed, "layers"), "layers.json").read_bytes())
        policy = load_policy(self._blob(chosen, "policy.json").read_bytes(), "policy.json")
        arguments = {"num_classes": self.setting.num_classes, "in_channels": 1}
        model = build_model(self.setting.factory, arguments, (ROOT,), seed=0)
        tensors = load_file(self._blob(tuned, "finetuned_model.safetensors"))
        test = read_pictures(self._blob(dataset, "dataset.safetensors"), info, "test")
        outputs = predict(load_quantized(model, layers, policy, tensors), test.x, info)
        task = classification()
        right, losses = task.metric(outputs, test.y), task.losses(outputs, test.y)
        return [int(value) for value in right.tolist()], [round(value, 5) for value in losses.tolist()]

    def _latest(self, seed: int, cell: str) -> Record:
        found = self.store.latest(name_of(seed), cell)
        assert found is not None, f"{name_of(seed)} has no {cell}"
        return found

    def _blob(self, record: Record, file: str) -> Path:
        return self.store.blob(record.outputs[file].sha256)


def main(folder: Path, setting: Setting, *, only_table: bool = False) -> int:
    """Run what is left, then tell."""
    claim = Claim(folder.resolve(), setting)
    if only_table:
        for seed in setting.seeds:
            claim.judge(seed)
    else:
        run_all(claim)
    trials = claim.trials()
    told = table(trials, SEARCHED) if trials else "no trial is finished"
    content = {"machine": machine(), "setting": setting.as_json(), "trials": trials}
    (folder / "claim.json").write_text(json.dumps(content))
    (folder / "claim.md").write_text(told + "\n")
    print(told)
    return 0


def run_all(claim: Claim) -> None:
    """Seeds side by side, once the first has handed on its float model."""
    first, *others = claim.setting.seeds
    try:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            running = [pool.submit(claim.run, first)]
            while not claim.checkpoint.exists() and not running[0].done():
                time.sleep(LOOK_S)
            if claim.checkpoint.exists():
                running += [pool.submit(claim.run, seed) for seed in others]
            for one in running:
                one.result()
    finally:
        claim.mixbit("down", log="down").wait(60)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="a rehearsal on digits")
    parser.add_argument("--table", action="store_true", help="run nothing, judge what is there")
    parser.add_argument("--alpha", type=float, help="instead of balanced")
    options = parser.parse_args()
    chosen = QUICK if options.quick else Setting()
    chosen = replace(chosen, alpha=options.alpha) if options.alpha else chosen
    sys.exit(main(options.folder, chosen, only_table=options.table))
