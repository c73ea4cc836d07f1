"""An optional recogniser writes down what the user says, beside the answers and never on their way."""
