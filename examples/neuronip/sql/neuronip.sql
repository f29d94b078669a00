-- Put the schema file of NeuronIP here. It is applied once; until then this line keeps anything from being noted as done.
DO $$ BEGIN RAISE EXCEPTION 'sql/neuronip.sql of the inventory is not filled in yet'; END $$;
