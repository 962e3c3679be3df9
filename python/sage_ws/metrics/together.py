"""What several processes show, as one: each sample with the label ``worker``, each metric once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


class Together(Collector):
    """A collector over the texts of several processes, in the format that Prometheus scrapes.

    Args:
        texts: asked at every scrape: what each process shows, by its place.
    """

    def __init__(self, texts: Callable[[], Mapping[int, bytes]]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        """All that the processes show, and how many of them answered."""
        texts = self._texts()
        families: dict[str, Metric] = {}
        for place in sorted(texts):
            for family in text_string_to_metric_families(texts[place].decode()):
                together = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": str(place)}
                    together.add_sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)
        yield GaugeMetricFamily("sage_ws_workers", "Processes that are in this answer.", value=len(texts))
        yield from families.values()
