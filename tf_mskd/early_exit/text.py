"""Early exits as tables and lines for a terminal; percent are for people alone."""

from tf_mskd.utils.tables import as_text, count_text


def calibration_lines(fitted: dict) -> list[str]:
    """Returns what `calibration.calibrate` has fitted as tables and a line."""
    errors = [["exit", "temperature", "calibration error", "calibrated"]]
    for name, error in fitted["calibration_error"].items():
        scale = fitted["temperatures"].get(name)
        scale = "" if scale is None else f"{scale:.3f}"
        numbers = [f"{100 * error[when]:.2f} %" for when in ("before", "after")]
        errors.append([name.replace("_", " "), scale, *numbers])
    criteria = [["criterion", "accuracy", "fraction of MACs", "target"]]
    for name, values in fitted["criteria"].items():
        met = "met" if values["met"] else "missed"
        accuracy = f"{100 * values['accuracy']:.2f}"
        fraction = f"{100 * values['macs_fraction']:.1f} %"
        criteria.append([name, accuracy, fraction, met])
    held_out = fitted["validation"]
    exits = [["exit", "threshold", "exit there"]]
    for name, threshold in fitted["thresholds"].items():
        rate = f"{100 * held_out['exit_rates'][name]:.1f} %"
        exits.append([name.replace("_", " "), threshold_text(threshold), rate])
    lines = [as_text(errors), as_text(criteria), as_text(exits)]
    lines.append(
        f"criterion {fitted['criterion']}, answer by {fitted['answer']}: accuracy "
        f"{100 * held_out['accuracy']:.2f} % of {held_out['examples']:,} held-out "
        f"images (full pass {100 * held_out['full_accuracy']:.2f} %, standard error of "
        f"the difference {100 * held_out['standard_error']:.2f}) "
        f"for {100 * held_out['macs_fraction']:.1f} % of its MACs "
        f"({count_text(round(held_out['mean_macs']))})"
    )
    if not fitted["target"]["met"]:
        lines.append(
            f"--target_macs={fitted['target']['target_macs']} cannot be reached: exit "
            f"1 alone costs {100 * fitted['curve'][0]['budget']:.1f} % of the MACs of "
            "a full pass, and all examples exit there."
        )
    return lines


def threshold_text(value: float) -> str:
    """Writes a threshold; one above 1 is one that no confidence reaches."""
    return "never" if value > 1 else f"{value:.4f}"


def measurement_lines(measured: dict) -> list[str]:
    """Returns what `measure.measure` has measured as tables and a line."""
    anytime = [["exit", "alone", "its MACs", measured["answer"], "MACs so far"]]
    for name, row in measured["anytime"].items():
        anytime.append(
            [
                name.replace("_", " "),
                f"{100 * row['accuracy']:.2f}",
                count_text(row["own_macs"]),
                f"{100 * row['so_far_accuracy']:.2f}",
                count_text(row["macs"]),
            ]
        )
    exits = list(measured["anytime"])
    budgeted = [["budget", "accuracy", "mean MACs", "fraction"]]
    budgeted[0] += [name.replace("_", " ") for name in exits]
    chosen = {"budget": "chosen", **measured["early_exit"]}
    for row in [*measured["budgeted"], chosen]:
        budget = row["budget"]
        budgeted.append(
            [
                budget if isinstance(budget, str) else f"{100 * budget:.1f} %",
                f"{100 * row['accuracy']:.2f}",
                count_text(round(row["mean_macs"])),
                f"{100 * row['macs_fraction']:.1f} %",
                *(f"{100 * row['exit_rates'][name]:.1f} %" for name in exits),
            ]
        )
    early, full = measured["early_exit"], measured["full"]
    line = (
        f"criterion {measured['criterion']}, answer by {measured['answer']}: test "
        f"accuracy {100 * early['accuracy']:.2f} % "
        f"(full pass {100 * full['accuracy']:.2f} %) for "
        f"{100 * early['macs_fraction']:.1f} % of its MACs "
        f"({count_text(round(early['mean_macs']))})"
    )
    return [as_text(anytime), as_text(budgeted), line]
