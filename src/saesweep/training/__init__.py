from saesweep import old_names

__getattr__ = old_names.attributes(__name__)
