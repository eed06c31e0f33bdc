"""Containers that are not read, and what does read them.

Some begin as a TIFF does and hold a thumbnail there, which would be taken for the slide.
"""

from __future__ import annotations

from pathlib import Path

_BIOFORMATS = "convert it to OME-TIFF with Bio-Formats (bfconvert), QuPath or Fiji"
_RAW = "develop it to a 16-bit TIFF with RawTherapee, darktable or dcraw"
#: Containers that are not read, and what reads them. Some begin as a TIFF does, and hold a thumbnail there.
REFUSED = {
    ".vsi": ("an Olympus/Evident slide, whose pixels lie in a folder next to it", _BIOFORMATS),
    ".ets": ("the pixels of an Olympus/Evident slide (.vsi)", _BIOFORMATS),
    ".oir": ("an Olympus FluoView file", _BIOFORMATS),
    ".oib": ("an Olympus FluoView file", _BIOFORMATS),
    ".oif": ("an Olympus FluoView file", _BIOFORMATS),
    ".czi": ("a Zeiss CZI file", _BIOFORMATS),
    ".zvi": ("a Zeiss ZVI file", _BIOFORMATS),
    ".lif": ("a Leica LIF file", _BIOFORMATS),
    ".lof": ("a Leica LOF file", _BIOFORMATS),
    ".xlef": ("a Leica project", _BIOFORMATS),
    ".nd2": ("a Nikon ND2 file", _BIOFORMATS),
    ".nd": ("a MetaMorph index of TIFF files", "give the TIFF files themselves"),
    ".htd": ("a MetaXpress index of TIFF files", "give the TIFF files themselves"),
    ".xdce": ("an InCell index of TIFF files", "give the TIFF files themselves"),
    ".ndpis": ("a Hamamatsu index of NDPI files", "give the .ndpi files themselves"),
    ".ims": ("an Imaris file", _BIOFORMATS),
    ".dv": ("a DeltaVision file", _BIOFORMATS),
    ".flex": ("an Opera Flex file", _BIOFORMATS),
    ".mvd2": ("a Volocity library", _BIOFORMATS),
    ".sld": ("a SlideBook file", _BIOFORMATS),
    ".sldy": ("a SlideBook folder", _BIOFORMATS),
    ".mcd": ("an imaging mass cytometry file", "export OME-TIFF from MCD Viewer or with readimc"),
    ".mds": ("a Motic slide", "export TIFF or SVS from its viewer"),
    ".kfb": ("a KFBio slide", "export TIFF or SVS from its viewer"),
    ".sdpc": ("an SQRAY slide", "export TIFF or SVS from its viewer"),
    ".tmap": ("a UNIC slide", "export TIFF or SVS from its viewer"),
    ".isyntax": ("a Philips iSyntax slide", "convert it with isyntax2raw and raw2ometiff"),
    ".i2syntax": ("a Philips iSyntax slide", "convert it with isyntax2raw and raw2ometiff"),
    ".ome": ("an OME record without pixels", "give the TIFF files that it lists"),
    ".npy": ("a NumPy array", "call segment(numpy.load(…)) in Python, or save it as TIFF"),
    ".npz": ("NumPy arrays", "call segment(numpy.load(…)[…]) in Python, or save one as TIFF"),
    ".h5": ("an HDF5 file", "save the picture in it as TIFF"),
    ".hdf5": ("an HDF5 file", "save the picture in it as TIFF"),
    ".mat": ("a MATLAB file", "save the picture in it as TIFF"),
    ".pdf": ("a PDF", "save the picture in it as TIFF"),
    ".jp2": ("a JPEG 2000 picture", "convert it: vips tiffsave IN OUT.tif --tile --compression deflate"),
    ".gif": ("a GIF", "save it as PNG"),
    ".heic": ("an HEIC photograph", "save it as PNG"),
    ".psd": ("a Photoshop document", "save it as TIFF"),
    **dict.fromkeys(
        (
            ".dng",
            ".nef",
            ".nrw",
            ".cr2",
            ".cr3",
            ".crw",
            ".arw",
            ".sr2",
            ".srf",
            ".orf",
            ".rw2",
            ".pef",
            ".raf",
            ".srw",
            ".3fr",
            ".fff",
            ".iiq",
            ".kdc",
            ".dcr",
            ".erf",
            ".mef",
            ".mos",
            ".mrw",
            ".rwl",
        ),
        ("a camera's raw file, whose pixels are not those of a picture yet", _RAW),
    ),
}


def refusal(path: Path) -> str | None:
    """Return why a file is not read, by its ending, and what does read it; ``None`` for the others."""
    found = REFUSED.get(path.suffix.lower())
    return None if found is None else f"{path}: {found[0]}; {found[1]}"
