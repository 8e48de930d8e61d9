"""A LangChain executor under a budget: one callback handler. Stops before the call that the budget cannot pay."""

from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

import clearance
from clearance_langchain import ClearanceCallbackHandler


@tool
def check_quality(draft: str) -> str:
    """Check a draft. Answers PASSED, or what to mend."""
    return "FAILED: try again"


model = ChatOpenAI(model="gpt-4o-mini", max_tokens=100, stream_usage=True, max_retries=0)
prompt = ChatPromptTemplate.from_messages([("human", "{input}"), ("placeholder", "{agent_scratchpad}")])
agent = create_tool_calling_agent(model, [check_quality], prompt)
executor = AgentExecutor(agent=agent, tools=[check_quality], max_iterations=100)

authority = clearance.connect()
authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("0.001")))
handler = ClearanceCallbackHandler(authority, clearance.Subject(tenant="acme", agent="writer"))
try:
    print(executor.invoke({"input": "Write a product page."}, config={"callbacks": [handler]})["output"])
except clearance.Denied as denied:
    print("Stopped:", denied)
