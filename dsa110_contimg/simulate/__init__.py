"""Sky, array and faults in; subband files in the observatory's layout, and their truth, out."""
