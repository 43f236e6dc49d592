"""A proof run as JUnit XML: a suite for each system, a case for each obligation, and one for each other question."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from model_checks.proofs.obligations import Obligation
from model_checks.proofs.report import Findings, Report


def document(report: Report) -> ElementTree.Element:
    """The run as `testsuites`; what failed carries its counterexample, or says that the solver does not know."""
    root = ElementTree.Element("testsuites", name="comitia check prove", time=f"{report.seconds:.3f}")
    for findings in report.systems:
        suite(root, findings)
    if report.ghosts is not None:
        lines = [f"{dependence.action}: {dependence.what}" for dependence in report.ghosts]
        element = ElementTree.SubElement(root, "testsuite", name="below_a_base")
        questions(element, "prove.below_a_base", {"nothing depends on the history below a base": "\n".join(lines)})
        counted(element)
    counted(root)
    return root


def suite(root: ElementTree.Element, findings: Findings) -> None:
    """One system's obligations, and whether its proof says anything."""
    name = findings.examined.name
    element = ElementTree.SubElement(root, "testsuite", name=name)
    texts = {found.obligation: found.text for found in findings.counterexamples}
    for proof in sorted(findings.proofs, key=lambda proof: proof.obligation):
        obligation = proof.obligation
        case = ElementTree.SubElement(
            element,
            "testcase",
            classname=f"prove.{name}.{obligation.subject}",
            name=obligation.goal,
            time=f"{proof.milliseconds / 1000:.4f}",
        )
        if not proof.proved:
            fail(case, *why(obligation, texts))
    if findings.witness is not None:
        impossible = "" if findings.witness else "no such run"
        questions(element, f"prove.{name}.possible", {findings.examined.witnessed: impossible})
        forbidden = dict.fromkeys(findings.unreachable, "the lemmas forbid it")
        actions = {act.name: forbidden.get(act.name, "") for act in findings.examined.system.actions}
        questions(element, f"prove.{name}.reachable", actions)
    counted(element)


def why(obligation: Obligation, counterexamples: dict[Obligation, str]) -> tuple[str, str]:
    """Why an obligation is not proved: a short message and a text."""
    found = counterexamples.get(obligation)
    if found is not None:
        return "counterexample to induction", found
    return "not proved", f"{obligation.key}: the solver gave no answer within its limits"


def questions(parent: ElementTree.Element, classname: str, answers: dict[str, str]) -> None:
    """Cases that pass if there is nothing to say against them."""
    for name, text in answers.items():
        case = ElementTree.SubElement(parent, "testcase", classname=classname, name=name, time="0")
        if text:
            fail(case, text.splitlines()[0], text)


def fail(case: ElementTree.Element, message: str, text: str) -> None:
    """Mark a case as failed."""
    ElementTree.SubElement(case, "failure", message=message).text = text


def counted(element: ElementTree.Element) -> None:
    """Say how many cases there are, and how many failed."""
    element.set("tests", str(len(list(element.iter("testcase")))))
    element.set("failures", str(len(list(element.iter("failure")))))
    element.set("errors", "0")


def write(report: Report, file: Path) -> None:
    """Write the run to a file. Raises OSError."""
    tree = ElementTree.ElementTree(document(report))
    ElementTree.indent(tree)
    tree.write(file, encoding="utf-8", xml_declaration=True)
