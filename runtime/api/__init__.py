"""The verbs that programs call, and the engines that they choose among."""
