"""Random requests to real agents, judged by the OpenAPI document that they serve."""
