"How the recorded numbers were made: plain scripts beside the package, run from the top of the project."
