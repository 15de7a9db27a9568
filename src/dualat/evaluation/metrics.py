"""Every metric by name: which records it gives, what it needs, and which settings it depends on.

Add a metric here; `dualat evaluate`, `dualat.evaluate`, fingerprints and the report find it by this table.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData, evenly, fit_to_shape
from dualat.data.in_distribution import load_images
from dualat.evaluation.accuracy import clean_accuracy
from dualat.evaluation.autoattack import STANDARD, WrongState, autoattack
from dualat.evaluation.calibration import calibration, fit_temperature
from dualat.evaluation.context import Subject
from dualat.evaluation.counterfactuals import counterfactual_records
from dualat.evaluation.energies import energy_records, r1_record
from dualat.evaluation.features import (
    FeatureExtractor,
    ImageNetFeatures,
    InceptionFeatures,
    JudgeFeatures,
    imagenet_weights,
)
from dualat.evaluation.fidelity import fidelity_records
from dualat.evaluation.generation import generation_records
from dualat.evaluation.inception import inception_records
from dualat.evaluation.inception_weights import find_inception_weights
from dualat.evaluation.logits import attack_step_size, attacked_images, predict_logits
from dualat.evaluation.masking import grey_radius
from dualat.evaluation.needs import NOISE, check_outside, check_reference, own_split
from dualat.evaluation.ood import noise_images, ood_records, scores
from dualat.evaluation.robust import robust_accuracy
from dualat.evaluation.samples import from_model
from dualat.evaluation.step_sweep import step_sweep
from dualat.evaluation.throughput import throughput_records
from dualat.results.record import Record, timed


def _clean(subject: Subject) -> list[Record]:
    return [clean_accuracy(subject.required_model, subject.held_out())]


def _robust(subject: Subject) -> list[Record]:
    settings = subject.settings
    data = subject.held_out(settings.robust_images)
    largest = settings.large_eps or grey_radius(settings.norm, data.shape)
    radii = (*settings.eps, largest) if largest > max(settings.eps) else settings.eps
    records = []
    for i, eps in enumerate(radii):
        subject.progress("PGD", i, len(radii))
        threat = ThreatModel(settings.norm, eps)
        records.append(
            timed(lambda t=threat: robust_accuracy(subject.required_model, data, t, settings.steps))
        )
    return records


def _ensemble(subject: Subject, name: str, attacks: tuple[str, ...]) -> list[Record]:
    settings = subject.settings
    data = subject.held_out(settings.autoattack_images or settings.robust_images)
    records = []
    for eps in settings.autoattack_eps or (settings.validation_eps,):
        threat = ThreatModel(settings.norm, eps)
        folder = subject.partial(name, ENSEMBLE)
        state = None if folder is None else folder / f"{eps:g}.json"

        def attacked(threat: ThreatModel = threat, state=state) -> Record:
            return autoattack(
                subject.required_model,
                data,
                threat,
                attacks=attacks,
                seed=subject.seed,
                state=state,
                progress=lambda attack, done, total: subject.progress(f"{name} {attack}", done, total),
            )

        try:
            records.append(timed(attacked))
        except WrongState:  # it only saves time: begin anew
            assert state is not None
            state.unlink(missing_ok=True)
            records.append(timed(attacked))
    return records


def _calibration(subject: Subject) -> list[Record]:
    settings, model = subject.settings, subject.required_model
    temperature = 1.0
    if settings.temperature_scaling:
        validation = subject.data.validation
        temperature = fit_temperature(predict_logits(model, validation), validation.labels)
    data = subject.held_out()
    records = [calibration(predict_logits(model, data), data.labels, settings.bins, temperature)]
    attacked = subject.held_out(settings.robust_images)
    threat = ThreatModel(settings.norm, settings.validation_eps)
    images = attacked_images(model, attacked, threat, settings.steps)
    size = attack_step_size(threat, settings.steps)
    attack = {"norm": threat.norm, "eps": threat.eps, "steps": settings.steps, "step_size": size}
    logits = predict_logits(model, images)
    return [*records, calibration(logits, attacked.labels, settings.bins, temperature, attack)]


def _generation(subject: Subject) -> list[Record]:
    return generation_records(subject.samples, subject.reference, subject.judge, subject.seed)


def _imagenet_features(subject: Subject) -> list[Record]:
    features = ImageNetFeatures.for_shape(subject.samples.shape, subject.device)
    return fidelity_records(subject.samples, subject.reference, features, subject.seed)


def _inception(subject: Subject) -> list[Record]:
    weights = subject.settings.inception_weights
    return inception_records(subject.samples, subject.reference, weights, subject.seed, device=subject.device)


def outside_images(source: str, inside: ImageData, wanted: int, seed: int) -> ImageData:
    """`wanted` images (or all, of a smaller source) that the model has not learned, in the shape of `inside`."""
    if source in NOISE:
        return noise_images(source, inside.shape, wanted, seed)
    data = fit_to_shape(load_images(source, None, inside.shape), inside.shape)
    picked = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:wanted]
    return data.take(picked.sort().values, source)


def _ood(subject: Subject) -> list[Record]:
    settings, model = subject.settings, subject.required_model
    inside = subject.held_out(settings.ood_images)
    names = settings.ood_scores
    known = {name: scores(model, inside, name) for name in names}
    threat = ThreatModel("L2", settings.ood_eps)
    records = []
    for i, source in enumerate(settings.ood_sources):
        subject.progress(f"OOD {source}", i, len(settings.ood_sources))
        outside = outside_images(source, inside, settings.ood_images, subject.seed)
        records += ood_records(model, inside, outside, score_names=names, inside_scores=known)
        records += ood_records(
            model,
            inside,
            outside,
            score_names=names,
            attack=threat,
            steps=settings.ood_steps,
            step_size=settings.ood_step_size,
            inside_scores=known,
        )
    return records


def _counterfactual(subject: Subject) -> list[Record]:
    settings = subject.settings
    return counterfactual_records(
        subject.required_model,
        subject.held_out(settings.counterfactual_images),
        subject.judge,
        settings.counterfactual_eps,
        real=subject.data.train,
        steps=settings.counterfactual_steps,
        climb=settings.counterfactual_climb,
        seed=subject.seed,
    )


def _energy(subject: Subject) -> list[Record]:
    settings, model = subject.settings, subject.required_model
    wanted = settings.energy_images
    test = subject.held_out(wanted)
    train = subject.data.train.take(evenly(len(subject.data.train), wanted))
    threat = ThreatModel(settings.norm, settings.validation_eps)
    sets = {"train": train.float(), "test": test.float()}
    if model.initial is not None:
        sets["contrastive"] = from_model(model, wanted, subject.seed).images.float() / 255
    sets["adversarial"] = attacked_images(model, test, threat, settings.steps)
    for source in settings.ood_sources:
        sets[f"ood: {source}"] = outside_images(source, test, wanted, subject.seed).float()
    records = [*energy_records(model, sets), r1_record(model, test)]
    splits = {"train": "train", "contrastive": "", **{name: "" for name in sets if name.startswith("ood: ")}}
    for record in records:
        record.split = splits.get(record.settings["images"], "test")
    return records


def _throughput(subject: Subject) -> list[Record]:
    model, settings = subject.required_model, subject.settings
    threat = ThreatModel(settings.norm, settings.validation_eps)
    sampling = model.sampling
    records = throughput_records(
        model,
        subject.held_out(200),
        threat,
        settings.steps,
        max(1, sampling.steps),
        sampling_step_size=sampling.step_size,
        seed=subject.seed,
    )
    return [replace(record, split="") for record in records]


def _step_sweep(subject: Subject) -> list[Record]:
    model, settings = subject.required_model, subject.settings
    own = max(1, model.sampling.steps)
    tried = settings.sweep_steps or sorted({max(1, round(own * part / 4)) for part in range(1, 9)})
    return [
        step_sweep(model, subject.data.validation, subject.judge, tried, settings.sweep_samples, subject.seed)
    ]


def _suits(subject: Subject, kind: type[FeatureExtractor], features: str, published: bool = False) -> None:
    split = own_split(subject.settings.reference, subject.data)
    reference = subject.reference if split is None else split
    check_reference(reference, subject.sample_count, kind.dimension, features, published)


def _needs_of_generation(subject: Subject) -> None:
    _suits(subject, JudgeFeatures, "features of the judge")


def _needs_of_imagenet_features(subject: Subject) -> None:
    imagenet_weights()
    _suits(subject, ImageNetFeatures, "ImageNet features")


def _needs_of_inception(subject: Subject) -> None:
    find_inception_weights(subject.settings.inception_weights)
    _suits(subject, InceptionFeatures, "Inception features", published=True)


def _needs_of_outside(subject: Subject) -> None:
    check_outside(subject.settings.ood_sources, subject.data.test.shape)


@dataclass(frozen=True)
class Metric:
    """One entry of the table."""

    measure: Callable[[Subject], list[Record]]
    what: str
    """For people: the figures that it gives."""
    uses: tuple[str, ...]
    """Settings that its figures depend on."""
    of_samples: bool = False
    """Measured on samples, so that a file of them is enough."""
    needs: Callable[[Subject], object] | None = None
    """Raises MissingWeights where weights are not there that not everybody has, and what the measure would raise for
    images that it compares with; asked before anything is measured."""


ATTACK = ("norm", "steps", "robust_images")
SAMPLES = ("samples", "reference")
OOD = ("ood_sources", "ood_images", "ood_scores", "ood_eps", "ood_steps", "ood_step_size")
ENSEMBLE = ("norm", "autoattack_eps", "validation_eps", "autoattack_images", "robust_images")

METRICS: dict[str, Metric] = {
    "clean_accuracy": Metric(_clean, "clean accuracy", ()),
    "robust_accuracy": Metric(_robust, "robust accuracy under PGD, over eps", (*ATTACK, "eps", "large_eps")),
    "calibration": Metric(
        _calibration,
        "ECE, clean and under attack",
        (*ATTACK, "bins", "temperature_scaling", "validation_eps"),
    ),
    "generation": Metric(
        _generation,
        "samples: class accuracy; Frechet, kernel, precision, recall",
        SAMPLES,
        True,
        _needs_of_generation,
    ),
    "imagenet_features": Metric(
        _imagenet_features,
        "samples: the same in ImageNet features",
        SAMPLES,
        True,
        _needs_of_imagenet_features,
    ),
    "inception": Metric(
        _inception,
        "samples: FID, KID, Inception Score, precision, recall",
        (*SAMPLES, "inception_weights"),
        True,
        _needs_of_inception,
    ),
    "step_sweep": Metric(_step_sweep, "number of sampling steps", ("sweep_steps", "sweep_samples")),
    "ood": Metric(_ood, "OOD detection, clean and under the adaptive attack", OOD, needs=_needs_of_outside),
    "counterfactual": Metric(
        _counterfactual,
        "counterfactuals: validity, confidence, distance, Frechet distance",
        ("counterfactual_eps", "counterfactual_images", "counterfactual_steps", "counterfactual_climb"),
    ),
    "energy": Metric(
        _energy,
        "energy of train, test, contrastive, adversarial, OOD images; R1",
        ("energy_images", "ood_sources", "norm", "steps", "validation_eps"),
        needs=_needs_of_outside,
    ),
    "throughput": Metric(_throughput, "images/s", ("norm", "steps", "validation_eps")),
    "apgd": Metric(
        lambda subject: _ensemble(subject, "apgd", ("apgd-ce",)), "robust accuracy under APGD", ENSEMBLE
    ),
    "autoattack": Metric(
        lambda subject: _ensemble(subject, "autoattack", STANDARD),
        "robust accuracy under AutoAttack standard",
        ENSEMBLE,
    ),
}

BASIC = ("clean_accuracy", "robust_accuracy", "generation")
"""What a training run ends with."""
