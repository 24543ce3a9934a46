"""A gallery of tracklets to search in, kept by Milvus: a folder on a laptop, a server by changing the address.

embedder = Embedder.load("model.safetensors")
with Gallery("people.gallery", embedder, writable=True) as gallery:        # or "http://host:19530"
    enrol_folder(gallery, "footage")                                       # embed a dataset and add it
    gallery.add([Entry("a", "gate", Modality.VISIBLE)], parts)             # -> Added(added, unchanged, replaced)
    gallery.search(parts, top=20, filters=Filters(cameras=["gate"]))       # -> [Hit(id, distance, probability, camera, ...)]
    gallery.search_frames(frames, "infrared", top=5)
    gallery.remove(["a"]); gallery.remove(filters=Filters(collections=["march"])); gallery.expire(age_of("30d"))
    gallery.info(); gallery.entries(ids); gallery.parts(ids); gallery.strip(id)
    back_up(gallery, "people.zip")
restore("people.zip", "elsewhere.gallery")
"""

from dinogrl.gallery.age import age_of
from dinogrl.gallery.backup import back_up, restore
from dinogrl.gallery.enrol import enrol_folder
from dinogrl.gallery.entries import Added, Entry, Hit, Info
from dinogrl.gallery.filters import Filters
from dinogrl.gallery.founding import Settings
from dinogrl.gallery.gallery import Gallery
from dinogrl.gallery.queries import Query, named_query

__all__ = [
    "Added",
    "Entry",
    "Filters",
    "Gallery",
    "Hit",
    "Info",
    "Query",
    "Settings",
    "age_of",
    "back_up",
    "enrol_folder",
    "named_query",
    "restore",
]
