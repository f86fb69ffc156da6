"""Checks of a whole data set: every file of every split."""

from collections.abc import Callable

from segjax.data import annotations, scan
from segjax.data.dataset import Dataset, RegionDataset
from segjax.errors import InputError
from segjax.preparation import orientations


def check(dataset: Dataset, *, log: Callable[[str], None] = print) -> None:
    """Reads every example of every split and logs each problem on one line.

    Images with an EXIF orientation are counted, see `orientations`.

    Raises:
        InputError: at the end, if there was any problem.
    """
    problems = 0
    bad: list[str] = []
    for split in dataset.splits:
        name = f"{dataset.spec.name} {split}"
        turned = ""
        try:
            source = dataset.splits[split]
            turned = orientations.report(source, name)
            result = scan.scan(source, dataset.spec, name=name, fresh=True)
        except InputError as error:
            lines = getattr(error, "problems", None) or [str(error)]
            problems += len(lines)
            bad.append(split)
            for line in lines:
                log(line)
        else:
            log(f"{name}: {result.sampled} examples read, no problem.")
            if not result.pixels.any():
                log(f"{name}: all pixels are void.")
        if turned:
            log(turned)
    if dataset.spec.num_classes < 2:
        log(f"{dataset.spec.name}: one class, which no network can learn to tell from others.")
    if bad:
        raise InputError(f"{dataset.spec.name}: {problems} problems in {', '.join(bad)}.")


def check_regions(dataset: RegionDataset, *, log: Callable[[str], None] = print) -> None:
    """Reads every example of every split; stops at the first that is wrong.

    Raises:
        InputError: naming it.
    """
    for split in dataset.splits:
        turned = orientations.report(dataset.splits[split], f"{dataset.name} {split}")
        if turned:
            log(turned)
        measures = annotations.sizes(dataset.splits[split], range(len(dataset.splits[split])))
        log(f"{dataset.name} {split}: {len(measures)} examples read, no problem.")
