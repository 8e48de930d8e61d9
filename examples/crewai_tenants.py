"""Two customers at the same time in one process, each on its own budget."""

import asyncio

from crewai import LLM, Agent, Crew, Task

import clearance
import clearance_crewai

authority = clearance.connect()
for tenant, dollars in (("acme", "1"), ("globex", "0.00001")):
    authority.set_budget(clearance.BudgetSpec(scope=f"tenant:{tenant}", allocated=clearance.usd(dollars)))


async def answer(tenant: str) -> str:
    writer = Agent(role="Writer", goal="write", backstory="brief", llm=LLM(model="openai/gpt-4o-mini", max_tokens=100))
    crew = Crew(agents=[writer], tasks=[Task(description="Greet us.", expected_output="a line", agent=writer)])
    try:
        result = await clearance_crewai.akickoff(crew, authority, subject=clearance.Subject(tenant=tenant))
        return f"{tenant}: {result.raw} ({result.clearance.spent()})"
    except clearance.Denied as denied:
        return f"{tenant}: stopped, {denied}"


async def main() -> None:
    print(*await asyncio.gather(answer("acme"), answer("globex")), sep="\n")


asyncio.run(main())
