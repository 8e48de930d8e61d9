"""A LangGraph graph whose parallel branches share the budget of one run."""

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

import clearance
from clearance_langchain import guard

authority = clearance.connect()
authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("5")))
model = guard(ChatOpenAI(model="gpt-4o-mini", max_tokens=50), authority)


def branch(topic: str):
    return lambda state: {"messages": [model.invoke([*state["messages"], ("user", f"Write about {topic}.")])]}


graph = StateGraph(MessagesState)
for topic in ("price", "light", "warranty", "delivery"):
    graph.add_node(topic, branch(topic))
    graph.add_edge(START, topic)
    graph.add_edge(topic, END)

with authority.run(clearance.Subject(tenant="acme"), budget=clearance.usd("0.01")) as run:
    state = graph.compile().invoke({"messages": [("user", "A desk lamp.")]})
print(len(state["messages"]), "messages for", run.report().spent())
