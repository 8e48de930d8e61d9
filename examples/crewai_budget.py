"""A research crew under a budget: the run stops before the call that it cannot pay, and keeps what is done."""

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

import clearance
import clearance_crewai


@tool
def search(query: str) -> str:
    """Search the web."""
    return f"Nothing about {query} yet, try other words."


llm = LLM(model="openai/gpt-4o-mini", max_tokens=100)
reader = Agent(
    role="Researcher", goal="find sources", backstory="never gives up", llm=llm, tools=[search], max_iter=100
)
crew = Crew(agents=[reader], tasks=[Task(description="Research lamps.", expected_output="a list", agent=reader)])

authority = clearance.connect()
authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("1")))
try:
    acme = clearance.Subject(tenant="acme")
    result = clearance_crewai.kickoff(crew, authority, subject=acme, budget=clearance.usd("0.002"))
    print(result.raw, result.clearance.spent())
except clearance.Denied as denied:
    print("Stopped:", denied, "| used:", clearance_crewai.partial_of(denied).report.by("agent"))
