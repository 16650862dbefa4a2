"""The custom resource ModelDeployment: one pydantic source for validation, CRD and reference docs."""

GROUP = "slipway.dev"
VERSION = "v1alpha1"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"
API_VERSION = f"{GROUP}/{VERSION}"
