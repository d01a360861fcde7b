"""What an audit of a data set found, as text for a terminal."""

from collections.abc import Iterable, Sequence

from imgrec.data.audit import Audit, SplitAudit

_MOST_LINES = 8  # of one kind; the rest is counted


def render(found: Audit) -> str:
    """Lines for people; problems begin with "!"."""
    lines = [f"{found.name}: {len(found.class_names)} classes", f"  {found.source}", ""]
    for split in found.splits:
        lines += [*_split(split, found.class_names), ""]
    lines += ["copies across splits"]
    for leak in found.leaks:
        if leak.exact or leak.near:
            lines.append(
                f"! {leak.exact + leak.near:,} of {leak.leaked} are also in {leak.known}: "
                f"{leak.exact:,} with the same pixels, {leak.near:,} near-duplicates; "
                f"{leak.conflicting:,} of them under another label"
            )
        else:
            lines.append(f"  none of {leak.leaked} is in {leak.known}")
    across = [copy for copy in found.copies if copy.across][:_MOST_LINES]
    lines += [
        f"  {copy.kind:6} {copy.first[0]} {copy.first[1]} ({found.class_names[copy.first[2]]}) = "
        f"{copy.second[0]} {copy.second[1]} ({found.class_names[copy.second[2]]}), "
        f"correlation {copy.correlation:.3f}"
        for copy in across
    ]
    if found.copies_across > len(across):
        lines.append(f"  and {found.copies_across - len(across):,} more")
    if any(copy.kind == "near" for copy in found.copies):
        lines.append(
            "  near-duplicates: images that correlate at 16x16 pixels, at least "
            f"{found.least_correlation:g}; look at them, as plain drawings do without being copies"
        )
    if found.conflicting_copies:
        lines.append(
            f"! {found.conflicting_copies:,} of {found.total_copies:,} pairs of copies have "
            "different labels"
        )
    lines += [f"! {message}" for message in found.damaged_files]
    return "\n".join(lines) + "\n"


def _split(split: SplitAudit, class_names: Sequence[str]) -> list[str]:
    counts = split.class_counts
    lines = [f"{split.name}: {split.examples:,} images"]
    if split.sizes:
        sizes = ", ".join(f"{size} ({n:,})" for size, n in split.sizes[:3])
        more = f", and {split.different_sizes - 3:,} more" if split.different_sizes > 3 else ""
        lines.append(f"  sizes: {sizes}{more}")
        if split.different_sizes > 1:
            lines.append(
                f"  width at 0, 5, 25, 50, 75, 95, 100 %: {_numbers(split.width_quantiles)}"
            )
            lines.append(f"  height likewise: {_numbers(split.height_quantiles)}")
        kinds = [*split.formats.items(), *split.modes.items()]
        lines.append("  kinds: " + ", ".join(f"{kind} {n:,}" for kind, n in kinds))
    lines.append(
        f"  images a class: {min(counts):,} to {max(counts):,}, imbalance {split.imbalance:.3g}"
    )
    if split.missing_classes:
        lines.append(f"! classes without an image: {_names(split.missing_classes)}")
    if split.near_empty_classes:
        named = [f"{name} ({n})" for name, n in split.near_empty_classes]
        lines.append(f"! nearly empty classes: {_names(named)}")
    for column in split.columns:
        groups = [f"{group.value} {group.examples:,}" for group in column.groups]
        lines.append(f"  {column.name}: {column.values:,} values: {_names(groups)}")
        for group in column.groups:
            absent = [
                class_names[label]
                for label, (n, all_of_it) in enumerate(zip(group.per_class, counts, strict=True))
                if not n and all_of_it
            ]
            if absent and column.values <= _MOST_LINES:
                lines.append(f"!   {column.name}={group.value} has none of: {_names(absent)}")
    lines.append(
        f"  copies within: {split.same_pixels:,} with the pixels of an earlier image "
        f"({split.same_files:,} the same file), {split.near_duplicates:,} near-duplicates of one"
    )
    if split.plain:
        lines.append(f"  {split.plain:,} images too plain to be compared but by their pixels")
    if split.unreadable:
        lines.append(f"! images that cannot be read: {len(split.unreadable):,}")
        lines += _some(f"!   {where}: {message}" for where, message in split.unreadable)
    return lines


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)


def _names(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_LINES:,} more" if len(names) > _MOST_LINES else ""
    return ", ".join(names[:_MOST_LINES]) + more


def _some(lines: Iterable[str]) -> list[str]:
    listed = list(lines)
    more = len(listed) - _MOST_LINES
    return listed[:_MOST_LINES] + ([f"  and {more:,} more"] if more > 0 else [])
