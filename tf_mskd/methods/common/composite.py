"""Several methods at once: their terms, added up."""

from tf_mskd.methods.common import registry
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.rows import first_rows


class Composite(Method):
    """The sum of the terms of several methods, as "kd,at" or "oto,crd" name them.

    Labels are learnt once: the terms "ce/..." of all methods are the same. Any other
    term may come from one method only. The default weight of a term is that of the
    first method with it, so "kd,at" learns labels with KD's weight and "at,kd" with
    AT's.

    Args:
        methods: list of `Method`, two or more; at most one of them may make several
            views of an image, the others then read the first view. Beside one whose
            teacher has a view of its own, the others read no teacher.

    Raises:
        UserError: if two methods make the same term or change the batch, or one reads
            a teacher that another gives a view of its own.

    Example:
        >>> from tf_mskd.methods.kd import KD
        >>> from tf_mskd.methods.ce import CE
        >>> Composite([CE(), KD()]).default_weights
        {'ce': 1.0, 'kd': 0.9}
    """

    def __init__(self, methods, **kwargs):
        super().__init__(**kwargs)
        self.methods = list(methods)
        self.registry_name = ",".join(m.registry_name for m in self.methods)
        self.default_weights = {}
        for method in reversed(self.methods):
            self.default_weights = {**self.default_weights, **method.default_weights}
        order = [t for method in self.methods for t in method.default_weights]
        self.default_weights = {t: self.default_weights[t] for t in order}
        self.target_keys = _union(m.target_keys for m in self.methods)
        uses = ("terms", "soft", "class")
        self.label_use = max((m.label_use for m in self.methods), key=uses.index)
        self.aux_heads = _union(m.aux_heads for m in self.methods)
        self.needs_teacher = any(m.needs_teacher for m in self.methods)
        self.trains_teacher = any(m.trains_teacher for m in self.methods)
        self.teacher_rate = min(m.teacher_rate for m in self.methods)
        changing = [m for m in self.methods if m.changes_batch]
        if len(changing) > 1:
            names = " and ".join(m.registry_name for m in changing)
            self.fail(f"cannot be: {names} both change the batch. Take one of them.")
        self.teacher_view = any(m.teacher_view for m in self.methods)
        reading = [m.registry_name for m in self.methods if m.needs_teacher]
        if self.teacher_view and len(reading) > 1:
            self.fail(
                f"cannot be: in {changing[0].registry_name} student and teacher read "
                f"different images, {' and '.join(reading)} read both: take one."
            )
        self._augmenting = changing[0] if changing else None
        self.rows_per_image = max(m.rows_per_image for m in self.methods)
        for method in self.methods:
            if hasattr(method, "num_negatives"):
                self.num_negatives = method.num_negatives

    def output_pairs(self, student, teacher):
        """Joins what the methods read."""
        joined = {}
        for method in self.methods:
            for name, found in method.output_pairs(student, teacher).items():
                joined[name] = tuple(dict.fromkeys((*joined.get(name, ()), *found)))
        return joined

    @property
    def is_prepared(self):
        """Whether all methods are prepared."""
        return all(method.is_prepared for method in self.methods)

    def prepare(self, teacher, targets):
        """Prepares the methods that are not."""
        for method in self.methods:
            if not method.is_prepared:
                method.prepare(teacher, targets)

    @property
    def changes_batch(self):
        """Whether one of the methods changes the batch."""
        return self._augmenting is not None

    def augment(self, images, targets, student, teacher):
        """Lets the one method that changes the batch do it."""
        if self._augmenting is None:
            return images, targets
        return self._augmenting.augment(images, targets, student, teacher)

    def set_task(self, task):
        """Sets what the exits answer, of all methods."""
        super().set_task(task)
        for method in getattr(self, "methods", ()):  # not yet while it is made
            method.set_task(task)

    def set_label_loss(self, loss):
        """Sets the loss of labels of all methods."""
        super().set_label_loss(loss)
        for method in getattr(self, "methods", ()):  # not yet while it is made
            method.set_label_loss(loss)

    def schedule(self, epoch, epochs, history):
        """Joins the methods' schedules."""
        factors = {}
        for method in reversed(self.methods):
            factors.update(method.schedule(epoch, epochs, history))
        return factors

    def call(self, student, teacher, targets):
        """Returns the terms of all methods."""
        terms, maker = {}, {}
        for method in self.methods:
            step = self.rows_per_image // method.rows_per_image
            parts = (student, teacher, targets)
            if step > 1:
                parts = (first_rows(part, step) for part in parts)
            for name, value in method(*parts).items():
                if name in terms and not name.startswith("ce/"):
                    self.fail(
                        f"cannot be: {maker[name]} and {method.registry_name} both "
                        f"make the term {name!r}. Take one of them."
                    )
                terms.setdefault(name, value)
                maker.setdefault(name, method.registry_name)
        return terms

    def get_config(self):
        """Returns the constructor's arguments."""
        parts = [{"method": m.registry_name, **m.get_config()} for m in self.methods]
        return {**super().get_config(), "methods": parts}

    @classmethod
    def from_config(cls, config):
        """Makes the composite again from its arguments."""
        methods = []
        for part in config["methods"]:
            arguments = {n: value for n, value in part.items() if n != "method"}
            methods.append(registry.method_class(part["method"]).from_config(arguments))
        return cls(**{**config, "methods": methods})


def _union(tuples):
    return tuple(dict.fromkeys(item for items in tuples for item in items))
