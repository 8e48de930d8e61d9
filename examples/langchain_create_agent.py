"""`create_agent` under a budget: the run may cost 0.05 USD, and send no more than two mails."""

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

import clearance
from clearance_langchain import ClearanceMiddleware

authority = clearance.connect()
acme = clearance.Subject(tenant="acme", agent="assistant")
authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("5")))
authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.credits(2)))


def send_email(to: str, text: str) -> str:
    """Send a mail."""
    print("mail sent")
    return "sent"


guard = ClearanceMiddleware(authority, tool_costs={"send_email": clearance.credits(1)})
agent = create_agent(ChatOpenAI(model="gpt-4o-mini", max_tokens=100), [send_email], middleware=[guard])
with authority.run(acme, budget=clearance.usd("0.05")) as run:
    answer = agent.invoke({"messages": [("user", "Write to all customers.")]}, {"recursion_limit": 20})
print(answer["messages"][-1].content)
print("cost", run.report().spent())
