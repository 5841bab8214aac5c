"""What this machine is and how it fares: processor, memory, clocks, power, throttling. Readers take text, or a root."""
