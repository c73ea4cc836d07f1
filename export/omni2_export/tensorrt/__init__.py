"""TensorRT plans: what each is built from and accepts, the audit, and the process that builds one."""
