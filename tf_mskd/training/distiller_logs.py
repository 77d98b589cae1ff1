"""What a Distiller measures and logs."""

import typing

import keras

from tf_mskd.training.batch import read_weight


class DistillerLogs(keras.Model):
    """The part of `Distiller` that measures the exits and names the logs."""

    def compute_metrics(
        self,
        x: typing.Any,
        y: typing.Any,
        y_pred: dict[str, typing.Any],
        sample_weight: typing.Any = None,
    ) -> dict[str, typing.Any]:
        """Updates the metrics and returns the logs, for Keras' own steps."""
        weight = read_weight(sample_weight, x)
        self.update_qualities(y_pred, self.read_targets(y), weight)
        return self.get_metrics_result()

    def update_qualities(
        self,
        outputs: dict[str, typing.Any],
        targets: dict[str, typing.Any],
        sample_weight: typing.Any,
    ) -> None:
        """Adds what the exits predict; without labels there is nothing to add."""
        self._labelled = "label" in targets
        if self._labelled:
            label = targets["label"]
            self._measures.update_qualities(outputs, label, sample_weight)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of Keras' own bookkeeping, the exits' and those of `compile`."""
        return [*super().metrics, *(m.metric for m in self._measures.further)]

    def get_metrics_result(self) -> dict[str, typing.Any]:
        """Returns the logs of training or, within `evaluate`, of evaluation.

        Keras takes these, exact over all replicas, for the logs of an epoch if the
        names are those of the last step's logs, which are means of replicas' means.
        """
        return self.evaluation_logs() if self._evaluating else self.training_logs()

    def training_logs(self) -> dict[str, typing.Any]:
        """Returns what the running phase has measured since the metrics were reset."""
        exits = self.trained_exits
        reads = self._networks.student_reads
        hidden = set(reads(self.exits)) - set(reads(exits))
        terms = [n for n in self.term_names if n.partition("/")[2] not in hidden]
        if not self._labelled:  # nor was what reads labels
            terms = [n for n in terms if n.partition("/")[0] != "ce"]
        return self._logs(terms, exits)

    def evaluation_logs(self) -> dict[str, typing.Any]:
        """Returns what evaluation has measured since the metrics were reset."""
        return self._logs([], self.exits)

    def _logs(self, terms, exits):
        loss = {"loss": self._loss_tracker.result()}
        measured = self._measures.results(terms, exits)
        if not self._labelled:
            measured = {n: measured[n] for n in terms}
        return {**loss, **measured}
