"""A model's card as the README that the Hugging Face Hub shows."""

from __future__ import annotations

from regard.card import Card


def readme(card: Card) -> str:
    """Markdown with the Hub's front matter: what the model tells apart, its scores, its licence, how to use it."""
    return "\n".join([*_front_matter(card), "", *_body(card), ""])


def _front_matter(card: Card) -> list[str]:
    tags = ["regard", "semantic-segmentation", card.architecture]
    return [
        "---",
        "library_name: regard",
        "pipeline_tag: image-segmentation",
        "license: other",
        f"license_name: {_quoted(card.licence or 'not stated')}",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]


def _body(card: Card) -> list[str]:
    backbone = card.config.get("backbone", "")
    resolution = f"- Ground resolution: {card.ground_resolution:g} m" if card.ground_resolution else ""
    facts = [
        f"- Bands: {', '.join(card.bands)}",
        resolution,
        f"- Origin: {card.origin}" if card.origin else "",
        f"- Credit: {card.credit}" if card.credit else "",
        f"- Licence: {card.licence or 'not stated; ask the maker'}",
    ]
    scores = [f"| {name} | {value:.4f} |" for name, value in card.scores.items()]
    return [
        f"# {card.architecture} on {backbone}",
        "",
        f"Tells {len(card.classes)} classes apart, pixel by pixel.",
        "",
        *(fact for fact in facts if fact),
        "",
        "## Use",
        "",
        "```python",
        "import regard",
        "",
        'model = regard.load("hf:USER/NAME")  # or the path of model.safetensors',
        'regard.predict(model, "image.jpg")',
        "```",
        "",
        "## Scores",
        "",
        *([f"On {card.protocol}.", ""] if card.protocol else []),
        *(["| measure | value |", "| --- | --- |", *scores] if scores else ["None recorded."]),
        "",
        "## Classes",
        "",
        "| label | class | colour |",
        "| --- | --- | --- |",
        *(
            f"| {label} | {name} | `#{red:02x}{green:02x}{blue:02x}` |"
            for label, (name, (red, green, blue)) in enumerate(
                zip(card.classes.names, card.classes.palette, strict=True)
            )
        ),
    ]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
