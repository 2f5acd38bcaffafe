"""A Resolved as text for a person: the answer first, then the API's word and that of DNS. Pure."""

from __future__ import annotations

from kptrace.diagnose.phrases import end
from kptrace.model import DnsAnswer, Endpoint, ResolveReport, Service
from kptrace.render.evidence import manifests
from kptrace.render.finding import other_findings
from kptrace.render.layout import Span, TextLayout, glue, span, width_of
from kptrace.render.phrases import duration_text, place_words, source_words, target_words
from kptrace.render.sanitize import pad

LABEL = 5
MOST_ENDPOINTS = 10
# what the answers of the last question mean, where there is no address among them
NO_RECORDS = {"NOERROR": "no address"}


def resolved(
    report: ResolveReport, width: int = 80, colour: bool = False, wide: bool = False
) -> str:
    page = TextLayout(width, colour)
    _heading(page, report)
    if report.findings:
        other_findings(page, report.findings)
    page.blank()
    _api(page, report, wide)
    _dns(page, report, wide)
    if report.service_source:
        page.blank()
        page.line(
            span(f"No API server was asked; this is told by {report.service_source}."), hang=2
        )
    elif report.missing:
        page.blank()
        page.line(span(f"Not there to read: {', '.join(report.missing)}."), hang=2)
    return page.text()


def _heading(page: TextLayout, report: ResolveReport) -> None:
    what = glue(target_words(report.target), "name")
    start = glue(f"from {source_words(report.source, report.target.namespace)}")
    answer = _answer(report)
    if width_of((what, start, answer)) + 4 <= page.width:
        page.row([what, span("  "), start], answer, [], hang=4)
    else:
        page.line(answer)
        page.line(what, span("  "), start, hang=2)
    if report.source.why.startswith("chosen"):
        page.line(span(report.source.why, "quiet"), indent=2, hang=2)


def _answer(report: ResolveReport) -> Span:
    if any(finding.severity == "error" for finding in report.findings):
        return glue("NOT AS IT SHOULD BE" if _addresses(report) else "UNRESOLVED", "bad")
    if report.unavailable or not (report.resolution.address or _addresses(report)):
        return glue("NOT ASKED OF DNS", "unsure")
    return glue("RESOLVED", "good")


def _addresses(report: ResolveReport) -> list[str]:
    return [
        text
        for dns_answer in report.resolution.dns
        for type, text in dns_answer.records
        if type in ("A", "AAAA")
    ]


# --- the API ------------------------------------------------------------------------------------


def _api(page: TextLayout, report: ResolveReport, wide: bool) -> None:
    meant = report.resolution
    if "api/services.json" in report.missing:
        page.line(span("not asked"), label=_label("API"))
        return
    service = meant.service
    if service is not None:
        page.line(
            span(_service_words(service)), label=_label("Rules" if report.service_source else "API")
        )
    elif report.target.kind == "name":
        page.line(
            span("no Service of the API has this name"),
            label=_label("Rules" if report.service_source else "API"),
        )
        return
    elif meant.endpoints:
        page.line(
            glue(_endpoint(meant.endpoints[0], report)),
            label=_label("Rules" if report.service_source else "API"),
        )
        return
    else:
        page.line(
            span(f"{meant.address} belongs to nothing that the API knows"),
            label=_label("Rules" if report.service_source else "API"),
        )
        return
    if service.external_name:
        return
    port = meant.service_port
    if port is not None:
        name = f" {port.name}" if port.name else ""
        known = port.target_port and not report.service_source
        target = f" to targetPort {port.target_port}" if known else ""
        node = f", node port {port.node_port}" if port.node_port else ""
        where = f"{end(meant.address, meant.port)}/{meant.protocol.upper()}"
        page.line(span(f"{where}: port {port.port}{name}{target}{node}"), indent=LABEL + 1, hang=8)
    _endpoints(page, report, wide)


def _service_words(service: Service) -> str:
    name = f"Service {service.key}"
    if service.external_name:
        return f"{name}, ExternalName: an alias for {service.external_name}"
    if service.headless:
        return f"{name}, headless: its name gives the endpoints' own addresses"
    own = ", ".join(service.cluster_ips)
    more = (("external IP", service.external_ips), ("load balancer IP", service.load_balancer_ips))
    others = "".join(f", {kind} {', '.join(texts)}" for kind, texts in more if texts)
    kind = "" if service.type == "ClusterIP" else f" {service.type},"
    return f"{name},{kind} ClusterIP {own or 'none'}{others}"


def _endpoints(page: TextLayout, report: ResolveReport, wide: bool) -> None:
    known = report.resolution.endpoints
    ready = sum(endpoint.ready for endpoint in known)
    if "api/endpointslices.json" in report.missing:
        page.line(span("endpoints: not asked of the API"), indent=LABEL + 1)
        return
    count = f"{len(known)} endpoint{'s' if len(known) != 1 else ''}"
    style = "" if ready else "bad"
    text = count if report.service_source else f"{count}, {ready} ready"
    page.line(span(text if known else "no endpoint", style), indent=LABEL + 1)
    shown = known if wide or len(known) <= MOST_ENDPOINTS else known[:4]
    for listed in shown:
        page.line(glue(_endpoint(listed, report)), indent=LABEL + 3)
    if len(shown) < len(known):
        more = f"... and {len(known) - len(shown)} more (-o wide lists them)"
        page.line(span(more, "quiet"), indent=LABEL + 3)


def _endpoint(endpoint: Endpoint, report: ResolveReport) -> str:
    where = (
        place_words(endpoint.node, endpoint.pod or "host", report.target.namespace)
        if endpoint.node
        else ""
    )
    state = "" if endpoint.ready else "  terminating" if endpoint.terminating else "  not ready"
    return f"{end(endpoint.address, endpoint.port)}  {where}{state}".rstrip()


# --- DNS ----------------------------------------------------------------------------------------


def _dns(page: TextLayout, report: ResolveReport, wide: bool) -> None:
    page.blank()
    meant = report.resolution
    if report.dns_skipped_reason:
        page.line(span(f"not asked: {report.dns_skipped_reason}"), label=_label("DNS"))
        for layer in report.unavailable:
            if layer.hint:
                page.line(span(f"To have it: {layer.hint}"), indent=LABEL + 1)
        manifests(page, report.unavailable)
        return
    page.line(
        span(
            f"nameserver {', '.join(report.servers)}; "
            f"search {' '.join(meant.search) or 'nothing'}; "
        ),
        glue(f"ndots {meant.ndots}"),
        label=_label("DNS"),
    )
    for answer in meant.dns:
        _said(page, answer)


def _said(page: TextLayout, answer: DnsAnswer) -> None:
    records = ", ".join(
        text if type == answer.type else f"{type} {text}" for type, text in answer.records
    )
    page.line(
        span(f"{answer.name} {answer.type}  "),
        span(
            records or NO_RECORDS.get(answer.status, answer.status), "good" if records else "quiet"
        ),
        span("  "),
        glue(
            f"({answer.server} over {answer.transport.upper()}, {duration_text(answer.elapsed_us)})"
        ),
        indent=LABEL + 1,
        hang=LABEL + 3,
    )


def _label(word: str) -> list[Span]:
    return [span(pad(word, LABEL + 1), "name")]
