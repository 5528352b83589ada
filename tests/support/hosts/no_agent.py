"""What the templates of the task prolog need to ask an agent, on a node that has none."""

NO_AGENT = {
    "python": "/nonexistent/python3",
    "job_client": "/nonexistent/client.py",
    "people_socket_path": "/agent/agent.sock",
}
