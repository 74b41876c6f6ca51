"""The parameters of a run and what every other package needs: its errors and log, old names, and
where things lie. Whoever imports any of these imports it from here."""
from adlib.config.errors import WHERE, InputError, check_known, did_you_mean, log, show_log
from adlib.config.old_names import (
    RENAMED_FILES,
    RENAMED_LAYOUTS,
    deprecated,
    upgrade,
    upgrade_metrics,
    upgrade_weights,
)
from adlib.config.parameters import (
    DETECTORS,
    FEATURE_MODELS,
    FITS,
    FITTED_IN_SECONDS,
    KINDS,
    LANGUAGES,
    MODELS,
    OWN,
    PIXEL_MODELS,
    REFERENCE_SCORE,
    STATISTICS,
    Config,
)
from adlib.config.places import (
    cache_dir,
    given_path,
    is_folder_name,
    own_file,
    project_root,
    study_root,
)
