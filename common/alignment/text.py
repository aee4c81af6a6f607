from common.layouts import Layout
def rules(layouts):
    return "\n".join(f"{n} <- {l}" for n,l in layouts.items())
def describe(a):
    return a.rules+f"\n{a}"
