"""Many customers, each with the budget of its own tenant. `uvicorn langchain_multi_tenant_web:app`"""

from langchain_openai import ChatOpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import clearance
from clearance_langchain import guard

authority = clearance.connect()
for tenant, dollars in (("acme", "5"), ("globex", "0.00001")):
    authority.set_budget(clearance.BudgetSpec(scope=f"tenant:{tenant}", allocated=clearance.usd(dollars)))
model = guard(ChatOpenAI(model="gpt-4o-mini", max_tokens=100), authority)


async def ask(request: Request) -> JSONResponse:
    customer = clearance.Subject(tenant=request.headers["x-tenant"])  # from your own authentication
    try:
        with authority.acting_as(customer):
            answer = await model.ainvoke((await request.body()).decode())
    except clearance.Denied as denied:
        return JSONResponse({"error": denied.reason_code, "message": str(denied)}, status_code=402)
    return JSONResponse({"answer": answer.content})


app = Starlette(routes=[Route("/ask", ask, methods=["POST"])])
