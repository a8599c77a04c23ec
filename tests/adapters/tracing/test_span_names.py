from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes

from mesh.adapters.tracing import span_names


def test_each_attribute_is_described_once() -> None:
    described = [name for name, _, _ in span_names.ATTRIBUTES]
    assert len(set(described)) == len(described)
    dotted = {
        text for name, text in vars(span_names).items() if name.isupper() and isinstance(text, str) and "." in text
    }
    assert dotted - {span_names.LINK, span_names.BAGGAGE_RUN} == set(described)


def test_the_names_are_those_of_the_conventions() -> None:
    known = {
        text
        for module in (gen_ai_attributes, messaging_attributes, error_attributes, server_attributes)
        for text in vars(module).values()
        if isinstance(text, str)
    }
    ours = {name for name, _, _ in span_names.ATTRIBUTES if not name.startswith(("mesh.", "cloudevents."))}
    assert ours <= known, ours - known
