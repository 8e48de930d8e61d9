"""A manager, a worker and a tool that needs a person's approval: the operator says so in the budget's caps."""

from crewai import LLM, Agent, Crew, Process, Task
from crewai.tools import tool

import clearance
import clearance_crewai


@tool
def send_offer(customer: str) -> str:
    """Send an offer by mail."""
    return f"sent to {customer}"


llm = LLM(model="openai/gpt-4o-mini", max_tokens=100)
manager = Agent(role="Manager", goal="sell", backstory="delegates", llm=llm, allow_delegation=True)
seller = Agent(role="Seller", goal="sell", backstory="writes offers", llm=llm, tools=[send_offer])
task = Task(description="Offer lamps to Ann.", expected_output="a report")
crew = Crew(agents=[seller], tasks=[task], manager_agent=manager, process=Process.hierarchical)

authority = clearance.connect()
caps = clearance.CapsRule(caps=clearance.Caps(approval_tools=("send_*",)))
authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("1"), caps=(caps,)))
acme = clearance.Subject(tenant="acme")
print("without approval:", clearance_crewai.kickoff(crew, authority, acme).clearance.refused, "refused")
result = clearance_crewai.kickoff(crew, authority, acme, approve=lambda tool, arguments: "ann@acme.example")
print("with approval:", [line.name for line in result.clearance.lines if line.kind == "tool.call"])
