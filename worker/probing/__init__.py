"""Whether hosts and endpoints reach each other, tried with packets of our own."""
