"""Running experiments: checked configs, recorded runs, resumable studies, engines.

Another distribution that owns one of our package names is found out here, before it is used.
"""

import warnings

from experiments.runner import guard

guard.check()
# Sacred's own import, about which nobody here can do anything.
warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
