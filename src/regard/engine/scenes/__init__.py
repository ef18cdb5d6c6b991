"""A scene of any size into a map: windows, blending, journal, publishing; many scenes on many machines."""
