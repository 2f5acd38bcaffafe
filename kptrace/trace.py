"""The story: resolve, snapshot, predict, probe, judge.

``run`` has the agents do it and keeps every word they say; ``report`` makes of these words, and of
nothing else, what the user reads. So ``report(unpack(saved))`` is the report of any earlier run.
Neither does I/O: the ground (a lab, a cluster, a node) opens agents, and agents do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from kptrace import cni
from kptrace.crew import FILES, Crew, Ground, unique
from kptrace.errors import KptraceError
from kptrace.far import Far
from kptrace.judge.case import cases
from kptrace.judge.meanwhile import endpoints_changed, rules_changed
from kptrace.judge.verdict import judge
from kptrace.kube.documents import Documents, Hearsay, read_documents
from kptrace.kube.resolution import choose_source, resolve
from kptrace.lookup import RESOLV_CONF, with_dns
from kptrace.model import Layer, Outcome, Place, Probe, Question, Trace
from kptrace.proof import probes_for, prove
from kptrace.reach import MOST_NODES, flow_of, predicted_for, snapshots_of
from kptrace.run import Run, facts_of, sender_was_there
from kptrace.scout import needed

Say = Callable[[str], None]


def run(question: Question, ground: Ground, seed: int, say: Say) -> Run:
    return traced(question, ground, seed, say)[0]


def traced(question: Question, ground: Ground, seed: int, say: Say) -> tuple[Run, Trace]:
    """Trace once; the run and its report, which had to be made to know what it asks for.

    seed: 32 random bits, the first cookie; ``say``: progress, for stderr
    """
    api = dict(ground.api())
    documents = read_documents(api)
    resolution = resolve(question, documents)
    source = choose_source(question, documents, (e.pod for e in resolution.endpoints))
    crew = Crew(ground)
    say(f"looking at {source.place.node}")
    behind = unique(e.node for e in resolution.endpoints if e.node)
    if ground.sparing and len(behind) == 1:  # no scout is needed to know that it is looked at
        crew.begin((source.place.node, *behind))
    alone = crew.sender(source.place)
    api = dict(alone) if alone is not None else api
    if not ground.sparing:
        crew.begin(behind[:MOST_NODES])
    near = crew.may_enter(unique((Place(node=source.place.node), source.place)))
    crew.dump(near, (*FILES, RESOLV_CONF))
    crew.dump((place for place in near if not place.pod), cni.wanted())
    resolution = with_dns(question, source, resolution, crew, seed)
    probes: tuple[Probe, ...] = ()
    if resolution.address and source.place in near:
        probes = probes_for(flow_of(source, resolution, documents), seed, question.count)
        beyond, far = None, tuple[Place, ...]()
        if any(
            not place.pod for place in near
        ):  # a pod that sees its own namespace only has nothing beyond
            beyond = Far(crew, question, source, resolution, documents, say)
            probes, far = beyond.ahead(probes) if ground.sparing else (probes, beyond.everywhere())
        say("sending " + ("one probe" if question.count == 1 else f"{question.count} probes"))
        places = (*near, *far)
        prove(crew, source, resolution, places, probes, question.timeout, question.trace_rule)
        if beyond is not None:
            beyond.done()
    told = Run(
        question=question,
        source=source,
        resolution=resolution,
        api=api,
        probes=probes,
        replies=crew.words(),
        absent=tuple(crew.absent),
    )
    made = _reported(told, crew.texts())  # which asks for the rules that it reaches
    told = msgspec.structs.replace(told, replies=crew.words())
    changed = () if _plain(made) else _changed(crew, ground, told, documents)
    if changed:
        told = msgspec.structs.replace(told, absent=(*told.absent, *changed))
        made = report(told)
    return told, made


def _plain(made: Trace) -> bool:
    """It came where it was foreseen to come, so nothing hangs on what else changed."""
    agreement = made.evidence.agreement
    parted = agreement is not None and agreement.parted
    return made.outcome is Outcome.DELIVERED and not made.findings and not parted


def _changed(crew: Crew, ground: Ground, run: Run, documents: Documents) -> tuple[Layer, ...]:
    """Since the rules were read and the API was asked. Of a Service that is being rolled out, an
    endpoint may go with the probe on its way to it.
    """
    service, node = run.resolution.service, run.source.place.node
    rules = tuple[Layer, ...]()
    try:
        found = crew.changed_rules().items()
        rules = tuple(rules_changed(place, parts) for place, parts in found)
        if service is None or documents.told_by is not None or not ground.forget():
            return rules
        now = read_documents(ground.api())
    except KptraceError:
        return rules  # an agent or the API is gone; what was seen before counts no less
    behind = (told.endpoints.get(service.key, ()) for told in (documents, now))
    return (*rules, *endpoints_changed(node, service.key, *behind))


def report(run: Run) -> Trace:
    """What the run shows. Pure: the same run gives the same report."""
    return _reported(run, facts_of(run.replies))


def _reported(run: Run, texts: Mapping[Place, Mapping[str, str]]) -> Trace:
    documents, snapshots = read_documents(run.api), snapshots_of(texts)
    prediction = needed(predicted_for(run.source, run.resolution, documents, snapshots), run)
    if documents.told_by is not None:
        run = msgspec.structs.replace(run, absent=(*run.absent, _unasked(run, documents.told_by)))
    if not sender_was_there(run):
        from kptrace.judge.api_alone import by_the_api  # few need it

        return by_the_api(run, documents)
    made = judge(run, cases(run, documents, snapshots, prediction))
    return msgspec.structs.replace(made, networks=cni.networks(snapshots, texts))


def _unasked(run: Run, told: Hearsay) -> Layer:
    """Where the rules name the endpoints, no rule can be seen to be stale."""
    node = run.source.place.node
    return Layer(
        name="the API", node=node, missing=told.why, remedy=told.remedy, manifest=told.manifest
    )
