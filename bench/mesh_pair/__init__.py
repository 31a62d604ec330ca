"""Two hops with mTLS between them: our engines beside Envoy and HAProxy, in turns."""
