"""Groups of commands of `dsa110`: each reads the settings, calls one function, and shows what came of it."""
