"""The files of the web page: plain HTML, CSS and ES modules, as they are sent."""
