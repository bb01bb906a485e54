"""Each verb as a function, for Python and for the command line alike: paths or objects in, a typed result out."""
