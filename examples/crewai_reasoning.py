"""An agent that plans for ever: a model that is never ready, and a soft landing at the end of the budget."""

from crewai import LLM, Agent, Crew, Task
from crewai.agent.planning_config import PlanningConfig

import clearance
import clearance_crewai

llm = LLM(model="openai/gpt-4o-mini", max_tokens=100)
planning = PlanningConfig(max_attempts=None)
planner = Agent(role="Planner", goal="plan well", backstory="never sure", llm=llm, planning_config=planning)
tasks = [Task(description="Plan a trip.", expected_output="a plan", agent=planner)]

authority = clearance.connect()
authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("1")))
result = clearance_crewai.kickoff(
    Crew(agents=[planner], tasks=tasks),
    authority,
    subject=clearance.Subject(tenant="acme"),
    budget=clearance.usd("0.005"),
    on_deny="finish",
)
print("Stopped:", result.clearance.denied)
print("Planned for", result.clearance.spent(), "in", result.clearance.calls, "calls")
