"""Why a connection to a Service ends where it ends: questions, reasons and the rules it meets, as values and text."""
