"""The admission webhook: a stateless service that gives pods which ask their volumes.

What it decides is a pure function from a pod to a patch or a refusal (`patch`, `checks`). No
security depends on it: the CSI driver asks again on the node whether a pod may use a spec.
"""
