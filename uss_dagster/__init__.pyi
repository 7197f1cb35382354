from .api.catalogue import methods
from .api.exchange import export, load_regions
from .api.regions import Regions, regions
from .api.scoring import score
from .api.segmenting import Backbone, backbone, segment
from .errors import UssError
from .student.model import Student

__version__: str
__all__ = ["Backbone", "Regions", "Student", "UssError", "backbone", "export", "load_regions", "methods", "regions", "score", "segment"]
