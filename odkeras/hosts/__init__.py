"""What shows tasks to an annotator and takes the answers: Prodigy, a web page, or known boxes played back."""
