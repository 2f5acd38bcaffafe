"""The places beyond the source's node that the probes may reach: found, and looked at.

In: what the near node's agent told. Out: the probes as they are to be sent, and the far places,
each with its state dumped. On a sparing ground scouts (scout.py) tell which these are; else, and
where no scout can tell, they are all places that a backend may be at, on at most MOST_NODES nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from kptrace import cni
from kptrace.crew import FILES, Crew, unique
from kptrace.kube.documents import Documents
from kptrace.model import Layer, Place, Prediction, Probe, Question, Resolution, Source
from kptrace.reach import entered, places_behind, predicted_for, snapshots_of
from kptrace.scout import Scouts

_ROUNDS = 3  # a conntrack entry may run out while a far agent starts; then the choice is made anew


class Far:
    def __init__(
        self,
        crew: Crew,
        question: Question,
        source: Source,
        resolution: Resolution,
        documents: Documents,
        say: Callable[[str], None],
    ) -> None:
        self._crew, self._source, self._say = crew, source, say
        self._resolution, self._documents = resolution, documents
        near = snapshots_of(crew.texts())
        self._prediction = predicted_for(source, resolution, documents, near)
        self._behind = partial(places_behind, source, resolution, documents)
        node = near[Place(node=source.place.node)]
        self._scouts = Scouts(crew, source, node, self._prediction, question.trace_rule)
        self._looked_at: tuple[Place, ...] = ()

    def everywhere(self) -> tuple[Place, ...]:
        return self._look_at(self._behind(_addresses(self._prediction)))

    def ahead(self, probes: tuple[Probe, ...]) -> tuple[tuple[Probe, ...], tuple[Place, ...]]:
        """With as few agents as can be; the probes go where the scouts went."""
        if len({place.node for place in self._behind(_addresses(self._prediction))}) < 2:
            return probes, self.everywhere()
        why, asked = self._scouts.unfit(), set[Place]()
        for _ in range(_ROUNDS if not why else 0):
            found = self._scouts.send(probes, self._documents)
            if found.lost:
                self._say(f"{self._source.place.node} lets no probe out")
                return found.probes, self._look_at(self._likeliest())
            why = found.why or self._chosen_elsewhere(found.backends)
            if why:
                break
            probes = found.probes
            wanted = self._behind(found.backends, known=True)
            if asked.issuperset(wanted):
                return probes, self._looked_at
            self._say("a scout was sent on to " + ", ".join(found.backends))
            self._look_at(wanted)
            asked.update(wanted)
        return self._unscouted(probes, why or "the backend is another one each time")

    def done(self) -> None:
        self._scouts.dismiss()

    def _unscouted(
        self, probes: tuple[Probe, ...], why: str
    ) -> tuple[tuple[Probe, ...], tuple[Place, ...]]:
        layer = Layer(name="scout", node=self._source.place.node, missing=why)
        self._crew.absent.append(layer)
        self._say(f"no scout can tell the backend ({why}); every node that has one is looked at")
        return probes, self.everywhere()

    def _chosen_elsewhere(self, backends: Iterable[str]) -> str:
        """A node port of another node: it is that node that translates."""
        if self._resolution.address in backends:
            for node in self._documents.nodes:
                if self._resolution.address in node.addresses:
                    return f"it is chosen on {node.name}"
        return ""

    def _likeliest(self) -> tuple[Place, ...]:
        first = _addresses(self._prediction)[:1]
        return self._behind(first, known=True) if first else ()

    def _look_at(self, wanted: Iterable[Place]) -> tuple[Place, ...]:
        """All of it that can be looked at, with what was looked at before."""
        near = self._source.place.node
        places = entered(near, unique((*self._looked_at, *wanted)), self._crew)
        new = [place for place in places if place not in self._looked_at]
        if new:
            self._say("looking at " + ", ".join(sorted({place.node for place in new})))
        self._crew.dump(new, FILES)
        self._crew.dump((place for place in new if not place.pod), cni.wanted())
        self._looked_at = places
        return places


def _addresses(prediction: Prediction) -> tuple[str, ...]:
    """Of the backends, the likeliest first."""
    return unique(branch.backend.address for branch in prediction.branches if branch.backend)
