"""What every room needs: errors, whole files, processes, devices and seeds, settings' types, arrays and signatures."""
